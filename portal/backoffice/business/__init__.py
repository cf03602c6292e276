"""Operators' pages: business."""
