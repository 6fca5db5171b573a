"""The device, the processor, and processes that train one network together."""
