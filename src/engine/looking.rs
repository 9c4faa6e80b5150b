//! The layers of images that are in use are looked at now and then, beside everything else.

use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use crate::image::{Image, ImageError};

/// What has just been asked for goes first.
const LATER: Duration = Duration::from_secs(3);

impl Engine {
    /// Looks at those layers of an image that nobody has looked at since the machine started, once there is time.
    pub fn look_at(self: &Arc<Self>, image: &Image) {
        let (engine, image) = (Arc::clone(self), image.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(LATER) => {}
                () = engine.closing.cancelled() => return,
            }
            // One image after the other; what they share is looked at once.
            let _alone = engine.looking.lock().await;
            if engine.store.unchecked(&image).is_empty() {
                return;
            }
            let (send, done) = tokio::sync::oneshot::channel();
            let looker = Arc::clone(&engine);
            std::thread::spawn(move || {
                // The priority is this thread's alone, which is why it is not one of those that do other work afterwards.
                let _ = rustix::process::setpriority_process(None, 19);
                looker.look_now(&image);
                let _ = send.send(());
            });
            // What it has not looked at yet, another engine does.
            tokio::select! {
                _ = done => {}
                () = engine.closing.cancelled() => {}
            }
        });
    }

    fn look_now(&self, image: &Image) {
        for layer in self.store.unchecked(image) {
            if self.closing.is_cancelled() {
                return;
            }
            let name = image.repo_tags.first().unwrap_or(&image.id);
            match self.store.check_layer(&layer, image) {
                Ok(()) => {}
                Err(error @ ImageError::Digest { .. }) => {
                    tracing::error!(image = name, %error, "an image is damaged: pull or build it again");
                }
                Err(error) => tracing::warn!(image = name, %error, "a layer cannot be looked at"),
            }
        }
    }
}
