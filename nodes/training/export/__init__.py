"""Files of what was trained, in the layouts that ComfyUI and its relatives load."""
