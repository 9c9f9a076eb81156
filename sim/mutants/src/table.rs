//! The mutants: what is broken, where, and which cases must notice.

/// One feature, switched off.
pub(crate) struct Mutant {
    /// Its name.
    pub(crate) name: &'static str,
    /// What is broken, for people.
    pub(crate) breaks: &'static str,
    /// The file, from the top of the repository.
    pub(crate) file: &'static str,
    /// What stands there, once.
    pub(crate) from: &'static str,
    /// What stands there instead.
    pub(crate) to: &'static str,
    /// The cases that must go red.
    pub(crate) red: &'static [&'static str],
}

/// Every mutant.
pub(crate) const MUTANTS: &[Mutant] = &[];
