//! Columns that line up as Go's `text/tabwriter` lines them up, on which docker's tables rest.

/// Lines up the tab-separated cells of `text`.
///
/// A column is a run of consecutive lines that have a tab after the cell; its width is its widest cell plus
/// `padding`, and `least` at least. What follows the last tab of a line belongs to no column.
pub fn align(text: &str, least: usize, padding: usize) -> String {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = vec![Vec::new(); lines.len()];
    measure(&lines, &mut widths, 0, 0..lines.len(), least, padding);
    let mut aligned = String::with_capacity(text.len() * 2);
    for (cells, widths) in lines.iter().zip(&widths) {
        for (at, cell) in cells.iter().enumerate() {
            aligned.push_str(cell);
            let missing = widths
                .get(at)
                .map_or(0, |width| width.saturating_sub(cell.chars().count()));
            aligned.extend(std::iter::repeat_n(' ', missing));
        }
        aligned.push('\n');
    }
    aligned
}

/// Finds the widths of the column blocks that begin at `column` in the given lines, and of those inside them.
fn measure(
    lines: &[Vec<&str>],
    widths: &mut [Vec<usize>],
    column: usize,
    range: std::ops::Range<usize>,
    least: usize,
    padding: usize,
) {
    let has_cell = |at: usize| lines[at].len() > column + 1;
    let mut at = range.start;
    while at < range.end {
        if !has_cell(at) {
            at += 1;
            continue;
        }
        let start = at;
        let mut width = least;
        while at < range.end && has_cell(at) {
            width = width.max(lines[at][column].chars().count() + padding);
            at += 1;
        }
        for line in &mut widths[start..at] {
            line.push(width);
        }
        measure(lines, widths, column + 1, start..at, least, padding);
    }
}

/// Returns a table with its headings, lined up as docker's lists are: cells at least ten wide, three blanks between.
pub fn docker(headings: &[&str], rows: &[Vec<String>]) -> String {
    table(headings, rows, 10, 3)
}

/// Returns a table with its headings, lined up as compose's own lists are: cells at least twenty wide.
pub fn wide(headings: &[&str], rows: &[Vec<String>]) -> String {
    table(headings, rows, 20, 3)
}

/// Returns a table with its headings.
pub fn table(headings: &[&str], rows: &[Vec<String>], least: usize, padding: usize) -> String {
    let mut text = headings.join("\t");
    text.push('\n');
    for row in rows {
        text.push_str(&row.join("\t"));
        text.push('\n');
    }
    align(&text, least, padding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        assert_eq!(
            align("NAME\tIMAGE\tPORTS\nproject-web-1\tbusybox\t80/tcp\n", 10, 3),
            "NAME            IMAGE     PORTS\nproject-web-1   busybox   80/tcp\n"
        );
    }

    #[test]
    fn a_line_without_the_column_ends_its_block() {
        assert_eq!(align("a\tb\nx\nlonger\tb\n", 0, 1), "a b\nx\nlonger b\n");
    }

    #[test]
    fn widths_count_characters() {
        assert_eq!(align("ä\tb\nab\tc\n", 0, 1), "ä  b\nab c\n");
    }
}
