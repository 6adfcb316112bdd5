"""Models: reading checkpoints, generating texts with them, grounding. Import the module that is needed.

Nothing is imported here, so that naming `univg.models` stays free of torch.
"""
