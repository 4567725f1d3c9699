"""The load, in processes of its own: `readers` of frames and `writers` of rows, steered by `process`."""
