"""The values that pass between the steps: typed, frozen, and with one way in and out of YAML."""
