"""Judging results: what a few noisy samples allow to say, and what two runs differ in.

Standard library only: ``cowshed bench compare`` works wherever Cowshed does.
"""
