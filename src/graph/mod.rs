//! Start order of a project's services.
