//! What is never watched: what editors, tools and git leave beside the files that people mean.

use std::path::{Component, Path};

/// Returns whether a file or directory is nothing that belongs in a container.
// docker/compose pkg/watch/ephemeral.go, and `.git`
pub fn is_ephemeral(path: &Path) -> bool {
    path.components().any(|component| match component {
        Component::Normal(name) => is_ephemeral_name(&name.to_string_lossy()),
        _ => false,
    })
}

fn is_ephemeral_name(name: &str) -> bool {
    // JetBrains, emacs, vim, kate, the Go tool, git.
    const WHOLE: [&str; 3] = [".git", ".idea", "4913"];
    const ENDS: [&str; 4] = ["~", "___jb_old___", "___jb_tmp___", "-go-tmp-umask"];
    const HIDDEN_ENDS: [&str; 5] = [".swp", ".swx", ".swo", ".swn", ".kate-swp"];
    WHOLE.contains(&name)
        || ENDS.iter().any(|end| name.ends_with(end))
        || name.starts_with(".#")
        || name.len() > 1 && name.starts_with('#') && name.ends_with('#')
        || name.starts_with('.')
            && HIDDEN_ENDS
                .iter()
                .any(|end| name.len() > end.len() && name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leavings_of_editors_and_git_are_known() {
        for (path, expected) in [
            ("src/main.rs", false),
            ("src/main.rs~", true),
            ("src/.main.rs.swp", true),
            ("src/.swp", false),
            ("src/main.swp", false),
            ("src/.main.rs.swx", true),
            ("4913", true),
            ("src/.#main.rs", true),
            ("src/#main.rs#", true),
            ("#", false),
            ("a#b#", false),
            ("x.txt___jb_tmp___", true),
            ("x.txt___jb_old___", true),
            (".idea/workspace.xml", true),
            (".git/index", true),
            ("vendor/x/.git/HEAD", true),
            (".gitignore", false),
            (".note.kate-swp", true),
        ] {
            assert_eq!(is_ephemeral(Path::new(path)), expected, "{path}");
        }
    }
}
