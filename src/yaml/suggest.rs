//! Guesses which word was meant.

/// Returns the candidate that differs least from `word`, if the difference looks like a slip.
pub fn closest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let limit = (word.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .filter(|candidate| candidate.len().abs_diff(word.len()) <= 2 * limit)
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|&(distance, _)| distance <= limit)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// Returns how many characters must be put in, left out, changed or swapped with a neighbour; case and the choice
/// between `-` and `_` count for nothing.
fn distance(left: &str, right: &str) -> usize {
    let fold = |text: &str| -> Vec<char> {
        let characters = text.chars().take(64).flat_map(char::to_lowercase);
        characters
            .map(|character| if character == '-' { '_' } else { character })
            .collect()
    };
    let (left, right) = (fold(left), fold(right));
    let mut rows: Vec<Vec<usize>> = vec![(0..=right.len()).collect()];
    for i in 1..=left.len() {
        let mut row = vec![i];
        for j in 1..=right.len() {
            let changed = usize::from(left[i - 1] != right[j - 1]);
            let mut cost = (rows[i - 1][j] + 1)
                .min(row[j - 1] + 1)
                .min(rows[i - 1][j - 1] + changed);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                cost = cost.min(rows[i - 2][j - 2] + 1);
            }
            row.push(cost);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_word() {
        let attributes = ["image", "environment", "env_file", "ports", "depends_on"];
        for (word, expected) in [
            ("imgae", Some("image")),
            ("enviroment", Some("environment")),
            ("env-file", Some("env_file")),
            ("Ports", Some("ports")),
            ("dependson", Some("depends_on")),
            ("zebra", None),
            ("", None),
        ] {
            assert_eq!(closest(word, attributes), expected, "{word}");
        }
    }
}
