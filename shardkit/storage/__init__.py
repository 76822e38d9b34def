"""Stores: folders and buckets behind one class, and how each is opened."""
