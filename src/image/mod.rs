//! Images: references, registry, content-addressed store, layers, archives.
