//! The completed indexes of an indexed Job in the format of its status: `1,3-5,7`.

use std::collections::BTreeSet;

/// Parses indexes and skips everything that is not an index below `completions`.
pub(super) fn parse(text: &str, completions: i32) -> BTreeSet<i32> {
    let number = |text: &str| text.parse::<i32>().ok();
    let ranges = text.split(',').filter_map(|part| match part.split_once('-') {
        Some((first, last)) => Some((number(first)?, number(last)?)),
        None => number(part).map(|index| (index, index)),
    });
    ranges.flat_map(|(first, last)| first.max(0)..=last.min(completions - 1)).collect()
}

/// Formats indexes. Three or more consecutive ones become a range.
pub(super) fn format(indexes: &BTreeSet<i32>) -> String {
    let mut runs: Vec<(i32, i32)> = Vec::new();
    for &index in indexes {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == index => *last = index,
            _ => runs.push((index, index)),
        }
    }
    let parts = runs.into_iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    });
    parts.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn three_consecutive_indexes_become_a_range() {
        let indexes = BTreeSet::from([1, 3, 4, 5, 7, 8]);
        assert_eq!(format(&indexes), "1,3-5,7,8");
        assert_eq!(parse("1,3-5,7,8", 9), indexes);
    }

    #[test]
    fn invalid_indexes_are_skipped() {
        assert_eq!(parse("", 3), BTreeSet::new());
        assert_eq!(parse("x,0,5-,2-9", 4), BTreeSet::from([0, 2, 3]));
    }

    proptest! {
        #[test]
        fn parse_reverts_format(indexes in proptest::collection::btree_set(0..200_i32, 0..50)) {
            prop_assert_eq!(parse(&format(&indexes), 200), indexes);
        }
    }
}
