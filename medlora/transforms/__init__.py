"""How a scan is prepared for a backbone: presets per modality, built of MONAI transforms."""
