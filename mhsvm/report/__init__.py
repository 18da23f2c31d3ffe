"""Pages and plots made from run folders. Nothing here runs a model."""
