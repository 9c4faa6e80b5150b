//! Starting, ending, watching.

use super::support::*;

#[tokio::test]
async fn a_command_runs_and_its_output_is_logged() {
    let Some(_) = runtime() else { return };
    let place = Box::new();
    let (record, text) = place.run("echo hello; echo oops >&2; exit 3").await;
    assert_eq!((record.code, record.signal, record.oom), (3, None, false));
    assert_eq!(text, "hello\noops\n");
}
