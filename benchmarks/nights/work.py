"""What a measured process took."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one process, or several one after another, took."""

    seconds: float
    """From its start to its end."""
    work: float
    """Of that, the stage itself."""
    work_cpu: float
    """CPU seconds of the work, of all threads."""
    cpu_seconds: float
    """CPU seconds of the whole process."""
    peak_mib: float
    """The largest resident set."""
    own_mib: float
    """The most memory without mapped files."""

    def __add__(self, other: "Work") -> "Work":
        return Work(
            seconds=self.seconds + other.seconds,
            work=self.work + other.work,
            work_cpu=self.work_cpu + other.work_cpu,
            cpu_seconds=self.cpu_seconds + other.cpu_seconds,
            peak_mib=max(self.peak_mib, other.peak_mib),
            own_mib=max(self.own_mib, other.own_mib),
        )
