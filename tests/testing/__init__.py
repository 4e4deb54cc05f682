"""The conformance kit under test."""
