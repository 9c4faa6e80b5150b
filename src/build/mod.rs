//! Builds images from Dockerfiles: stages, steps and their cache.
