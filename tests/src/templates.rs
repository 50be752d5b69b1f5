//! The shipped templates, for tests that change them.

/// The template without its concurrency limit: a load test has more unfinished Jobs, and a test of
/// the limit sets its own.
#[must_use]
pub fn without_limit(template: &str) -> String {
    let is_limit = |line: &str| line.starts_with("  limits:") || line.starts_with("    maxActive:");
    let mut lines: Vec<&str> = template.lines().collect();
    let comments = |lines: &[&str], at: usize| {
        let before = lines.iter().take(at).rev().take_while(|line| line.starts_with("    #")).count();
        at - before..at
    };
    if let Some(at) = lines.iter().position(|line| line.starts_with("    maxActive:")) {
        lines.drain(comments(&lines, at));
    }
    lines.retain(|line| !is_limit(line));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::without_limit;

    #[test]
    fn only_the_limit_is_removed() {
        let template = "a: 1\n    # kept\n\n  limits:\n    # Why.\n    maxActive: 2\n\n  job: {}\n";
        assert_eq!(without_limit(template), "a: 1\n    # kept\n\n\n  job: {}\n");
    }
}
