"""What people type beside the stages: run, tune, trace, recreate, decide, audit."""
