//! The known key that an unknown one was probably meant to be.
//!
//! Owns the measure of likeness. Pure; never decides whether a key is known.

/// The candidate nearest to `key` (both full keys, `vault.addr`); `None` only without candidates.
///
/// A key may be misspelt, or spelt well and stand in the wrong section (`watchNamespace` at the top): so a
/// candidate is as near as its whole path, or as its last part plus one for the move, whichever is less.
pub(super) fn nearest<'c>(key: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let key = key.to_lowercase();
    candidates.min_by_key(|candidate| {
        let candidate = candidate.to_lowercase();
        let whole = distance(&key, &candidate);
        let moved = distance(last(&key), last(&candidate)) + 1;
        (whole.min(moved), whole)
    })
}

fn last(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

/// Edit distance with swaps of neighbours as one edit: the commonest slip of the hand.
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let width = right.len() + 1;
    let mut table = vec![0; (left.len() + 1) * width];
    for (column, cell) in table.iter_mut().take(width).enumerate() {
        *cell = column;
    }
    for row in 1..=left.len() {
        table[row * width] = row;
        for column in 1..=right.len() {
            let here = row * width + column;
            let differs = usize::from(left[row - 1] != right[column - 1]);
            let mut best = (table[here - width] + 1).min(table[here - 1] + 1).min(table[here - width - 1] + differs);
            let swapped =
                row > 1 && column > 1 && left[row - 1] == right[column - 2] && left[row - 2] == right[column - 1];
            if swapped {
                best = best.min(table[here - 2 * width - 2] + 1);
            }
            table[here] = best;
        }
    }
    table.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits() {
        for (left, right, want) in [
            ("", "", 0),
            ("a", "", 1),
            ("addr", "addr", 0),
            ("adrd", "addr", 1),
            ("adr", "addr", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(left, right), want, "{left} {right}");
            assert_eq!(distance(right, left), want, "{right} {left}");
        }
    }
}
