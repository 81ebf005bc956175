"""The tensor coders of the `.sqz` format: each turns one tensor into bytes and back, exactly."""
