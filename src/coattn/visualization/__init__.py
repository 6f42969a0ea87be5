"""Every picture that the product draws."""
