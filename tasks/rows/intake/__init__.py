"""What a run takes of a delivery: new days, versions of rows and labels beside the plan, and what was seen before."""
