"""Ask a person to let a model through, by figures that have a name.

Airflow keeps what a task asks from its first try on: a task that is cleared asks with the text of before. So the name
of the figures is a field of the question, which is kept with the text and comes back with the answer, and `promote`
compares it with what the run has measured.
"""

from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Context, Param
from airflow.sdk.definitions.param import ParamsDict

from dags.messages import tell_rejection


class ApproveFigures(ApprovalOperator):
    """Ask whether to approve figures; their name comes back in the answer's `params_input`."""

    template_fields = (*ApprovalOperator.template_fields, "figures")

    def __init__(self, *, figures: str, **options: Any) -> None:
        """Take the name of the figures, or its template, and what the operator takes."""
        super().__init__(**options)
        self.figures = figures

    def execute(self, context: Context) -> None:
        """Ask, and wait without a worker."""
        field = Param(
            self.figures,
            type="string",
            title="figures",
            description=(
                "The name of the figures that you approve. Leave it as it is, unless promote has refused the answer "
                "since something was measured anew: then write the name that it gives."
            ),
        )
        self.params = ParamsDict({"figures": field})
        super().execute(context)

    def execute_complete(self, context: Context, event: Any) -> Any:
        """Go on with the answer; a rejection is told, and so is silence."""
        answer = super().execute_complete(context, event)
        if self.REJECT in answer["chosen_options"]:
            tell_rejection(context, (answer.get("responded_by_user") or {}).get("name"))
        return answer
