"""What a test or a prediction leaves to look at: tables and pictures. Nothing here runs a model."""
