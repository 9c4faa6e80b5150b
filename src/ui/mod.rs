//! Everything that is printed: progress, tables, log prefixes, prompts, error reports.
