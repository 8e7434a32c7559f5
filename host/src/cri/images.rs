//! Images of the runtime: whether one is there, and fetching it.

use std::time::Duration;

use super::{ASK_TIMEOUT, Client, CriError, answered, runtime_v1};

impl Client {
    /// Whether the runtime has the image.
    ///
    /// # Errors
    ///
    /// [`CriError::Call`], [`CriError::Timeout`].
    pub async fn has_image(&mut self, image: &str) -> Result<bool, CriError> {
        let url = self.url.clone();
        let request = runtime_v1::ImageStatusRequest { image: Some(spec(image)) };
        let answer = self.images.image_status(request);
        Ok(answered(&url, "ImageStatus", ASK_TIMEOUT, answer).await?.image.is_some())
    }

    /// Fetches the image, with the runtime's own credentials. The runtime tells no progress.
    ///
    /// # Errors
    ///
    /// [`CriError::Call`], for instance an image that its registry does not have; [`CriError::Timeout`].
    pub async fn pull_image(&mut self, image: &str, timeout: Duration) -> Result<(), CriError> {
        let url = self.url.clone();
        let request = runtime_v1::PullImageRequest { image: Some(spec(image)) };
        let answer = self.images.pull_image(request);
        answered(&url, "PullImage", timeout, answer).await.map(drop)
    }
}

fn spec(image: &str) -> runtime_v1::ImageSpec {
    runtime_v1::ImageSpec { image: image.to_owned() }
}
