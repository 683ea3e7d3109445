//! Images for the executor: kiban-bmc's store, and the endpoint from which BMCs fetch.

use super::machines::{ImageFault, Images, Offer};
use crate::context::Context;
use futures::future::BoxFuture;
use kiban_bmc::image::{ImageEndpoint, ImageError, ImageRules, ImageSource, ImageStore};
use std::{io, time::Duration};
use tokio::net::TcpListener;

/// How long a BMC may take to fetch an image that was offered to it. The offer ends sooner, with the operation's step.
const OFFER_TIME: Duration = Duration::from_secs(2 * 60 * 60);

/// The store on this replica's disk, and the endpoint.
pub struct Store {
    store: ImageStore,
    endpoint: ImageEndpoint,
}

impl Store {
    /// Opens the store in the cache folder.
    pub fn open(context: &Context, base_url: &str) -> Result<Self, ImageError> {
        let config = &context.config;
        let rules = ImageRules {
            hosts: config.image_hosts.clone(),
            allow_files: config.allow_file_images,
            timeout: config.upload_deadline,
            ..ImageRules::default()
        };
        Ok(Self {
            store: ImageStore::open(config.cache_dir.join("images"), rules)?,
            endpoint: ImageEndpoint::new(base_url),
        })
    }

    /// Serves what is on offer until the context ends: by https where a certificate is given.
    pub fn serve(
        &self,
        context: &Context,
        listener: TcpListener,
    ) -> impl Future<Output = io::Result<()>> + use<> {
        let (app, cancel) = (self.endpoint.router(), context.cancel.clone());
        let config = context.config.clone();
        async move {
            let secure = config.image_certificate.as_ref().zip(config.image_key.as_ref());
            let Some((certificate, key)) = secure else {
                return axum::serve(listener, app)
                    .with_graceful_shutdown(async move { cancel.cancelled().await })
                    .await;
            };
            let tls = axum_server::tls_rustls::RustlsConfig::from_pem_file(certificate, key).await?;
            let server = axum_server::from_tcp_rustls(listener.into_std()?, tls)?;
            tokio::select! {
                () = cancel.cancelled() => Ok(()),
                ended = server.serve(app.into_make_service()) => ended,
            }
        }
    }
}

impl Images for Store {
    fn stage<'a>(
        &'a self,
        image: &'a kiban_api::baseline::Image,
        deadline: Duration,
    ) -> BoxFuture<'a, Result<kiban_bmc::Image, ImageFault>> {
        Box::pin(async move {
            let source = ImageSource {
                url: image.url.clone(),
                sha256: image.sha256.clone(),
                file_name: None,
            };
            let staged = match tokio::time::timeout(deadline, self.store.get(&source)).await {
                Ok(staged) => staged.map_err(|error| ImageFault {
                    wrong: !error.transient(),
                    message: error.to_string(),
                })?,
                Err(_) => {
                    return Err(ImageFault {
                        wrong: false,
                        message: format!("the image did not arrive within {deadline:?}"),
                    });
                }
            };
            match image.size {
                Some(size) if u64::try_from(size) != Ok(staged.size) => Err(ImageFault {
                    wrong: true,
                    message: format!("the image has {} bytes, the baseline says {size}", staged.size),
                }),
                _ => Ok(staged),
            }
        })
    }

    fn offer(&self, image: &kiban_bmc::Image) -> Option<Offer> {
        let offer = self.endpoint.offer(image, OFFER_TIME);
        Some(Offer {
            url: offer.url().to_owned(),
            guard: Box::new(offer),
        })
    }
}
