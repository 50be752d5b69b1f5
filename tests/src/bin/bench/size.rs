//! How much each benchmark does.

/// The sizes of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) name: &'static str,
    /// The alternate rounds of each side.
    pub(crate) rounds: usize,
    /// The Jobs of a round that measures a rate or CPU time.
    pub(crate) jobs: usize,
    /// The requests of a round that measures the latency of one at a time.
    pub(crate) single: usize,
    /// The Jobs whose pods end at the same time.
    pub(crate) burst: usize,
    /// The Jobs whose calls to the API server are counted.
    pub(crate) counted: usize,
    /// The Jobs that change while NATS is frozen.
    pub(crate) changed: usize,
    /// The numbers of live Jobs.
    pub(crate) live: &'static [usize],
    /// The numbers of finished Jobs.
    pub(crate) finished: &'static [usize],
    /// The numbers of subjects in `JOB_STATUS` with the largest number of live Jobs.
    pub(crate) history: &'static [usize],
    /// The numbers of replicas.
    pub(crate) replicas: &'static [usize],
}

/// The size of the figures in the documentation.
const FULL: Size = Size {
    name: "full",
    rounds: 5,
    jobs: 5_000,
    single: 400,
    burst: 1_000,
    counted: 1_000,
    changed: 10_000,
    live: &[1_000, 10_000, 100_000],
    finished: &[0, 5_000, 20_000, 100_000],
    history: &[0, 100_000, 1_000_000],
    replicas: &[1, 2, 4],
};

/// Whether everything works, in some minutes. The figures mean little.
const SMALL: Size = Size {
    name: "small",
    rounds: 2,
    jobs: 200,
    single: 40,
    burst: 50,
    counted: 40,
    changed: 200,
    live: &[100, 400],
    finished: &[0, 100, 400],
    history: &[0, 1_000, 5_000],
    replicas: &[1, 2],
};

impl Size {
    /// By name; `full` if it is empty.
    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        match name {
            "" | "full" => Ok(FULL),
            "small" => Ok(SMALL),
            other => Err(format!("SIZE={other}: allowed are `full` and `small`")),
        }
    }

    /// The largest number of a list.
    pub(crate) fn largest(numbers: &[usize]) -> usize {
        numbers.iter().copied().max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_size_is_refused_with_the_allowed_ones() {
        assert_eq!(Size::parse("").unwrap().name, "full");
        assert_eq!(Size::parse("small").unwrap().name, "small");
        assert!(Size::parse("huge").unwrap_err().contains("`small`"));
    }

    #[test]
    fn full_size_covers_the_claims_of_the_documentation() {
        let full = Size::parse("full").unwrap();
        assert!(full.jobs >= 5_000 && full.rounds >= 3);
        assert_eq!((Size::largest(full.live), Size::largest(full.history)), (100_000, 1_000_000));
        assert_eq!(Size::largest(full.finished), 100_000);
    }
}
