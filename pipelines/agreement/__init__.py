"""Calls beside truths: evaluated, and calibrated on."""
