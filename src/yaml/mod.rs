//! YAML: parser events become nodes that know where they stand in their source.
