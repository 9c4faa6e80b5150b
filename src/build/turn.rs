//! Turns: what several builds need at the same time is made by one of them; the others wait, and find it in the cache.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;

use crate::image::Store;

type Turns = HashMap<String, Weak<tokio::sync::Mutex<()>>>;

static UNDER_WAY: LazyLock<Mutex<Turns>> = LazyLock::new(Mutex::default);

fn of(store: &Store, key: &str) -> Arc<tokio::sync::Mutex<()>> {
    let mut turns = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
    turns.retain(|_, turn| turn.strong_count() > 0);
    let name = format!("{} {key}", store.root().display());
    if let Some(turn) = turns.get(&name).and_then(Weak::upgrade) {
        return turn;
    }
    let turn = Arc::default();
    turns.insert(name, Arc::downgrade(&turn));
    turn
}

/// Waits until nobody else makes what a key stands for. Who then does not find it has to make it.
pub(super) async fn turn(store: &Store, key: &str) -> OwnedMutexGuard<()> {
    of(store, key).lock_owned().await
}

/// The same where it may block.
pub(super) fn blocking_turn(store: &Store, key: &str) -> OwnedMutexGuard<()> {
    of(store, key).blocking_lock_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_comes_second_waits_and_a_key_is_forgotten_with_its_last_user() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let first = turn(&store, "a").await;
        let other = turn(&store, "b").await;
        let waiting = store.clone();
        let second = tokio::task::spawn_blocking(move || blocking_turn(&waiting, "a"));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        assert!(!second.is_finished());
        drop(first);
        drop((second.await.unwrap(), other));
        let ours = store.root().display().to_string();
        let mut turns = UNDER_WAY.lock().unwrap();
        turns.retain(|_, turn| turn.strong_count() > 0);
        assert!(!turns.keys().any(|name| name.starts_with(&ours)));
    }
}
