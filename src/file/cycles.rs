//! Services that wait for each other, so that none could ever start.

use std::collections::BTreeMap;

/// Returns a cycle, from its first service back to it, if there is one.
pub fn find(edges: &BTreeMap<String, Vec<String>>) -> Option<Vec<String>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        Open,
        Done,
    }
    let mut seen: BTreeMap<&str, Seen> = BTreeMap::new();
    for start in edges.keys() {
        if seen.contains_key(start.as_str()) {
            continue;
        }
        // A stack of our own: chains can be as long as the file.
        let mut path: Vec<(&str, usize)> = vec![(start, 0)];
        seen.insert(start, Seen::Open);
        while let Some((name, next)) = path.last_mut() {
            let dependency = edges.get(*name).and_then(|list| list.get(*next));
            *next += 1;
            match dependency {
                None => {
                    seen.insert(name, Seen::Done);
                    path.pop();
                }
                Some(dependency) => match seen.get(dependency.as_str()) {
                    Some(Seen::Done) => {}
                    Some(Seen::Open) => {
                        let from = path.iter().position(|(name, _)| *name == dependency.as_str())?;
                        let mut cycle: Vec<String> = path[from..].iter().map(|(name, _)| (*name).to_owned()).collect();
                        let first = (0..cycle.len()).min_by_key(|&at| &cycle[at]).unwrap_or(0);
                        cycle.rotate_left(first);
                        cycle.push(cycle[0].clone());
                        return Some(cycle);
                    }
                    None => {
                        seen.insert(dependency, Seen::Open);
                        path.push((dependency, 0));
                    }
                },
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edges(list: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
        list.iter()
            .map(|(name, to)| ((*name).to_owned(), to.iter().map(|name| (*name).to_owned()).collect()))
            .collect()
    }

    #[test]
    fn a_cycle_is_shown_whole_from_its_first_name() {
        let found = find(&edges(&[("c", &["a"]), ("a", &["b"]), ("b", &["c"]), ("d", &["a"])]));
        assert_eq!(found, Some(vec!["a".into(), "b".into(), "c".into(), "a".into()]));
        assert_eq!(find(&edges(&[("a", &["b"]), ("b", &[]), ("c", &["a", "b"])])), None);
    }
}
