//! Files that are read again when they change: keys and certificates are exchanged while we serve.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio::time::sleep;

/// Largest file that is read, in bytes: a path that leads elsewhere fills no memory.
const FILE_BYTES_MAX: u64 = 1_024 * 1_024;

/// What the file has in it.
pub(crate) async fn read(path: &Path) -> Result<Vec<u8>, String> {
    let named = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = tokio::fs::File::open(path).await.map_err(named)?;
    let mut content = Vec::new();
    let mut file = file.take(FILE_BYTES_MAX + 1);
    file.read_to_end(&mut content).await.map_err(named)?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("{}: larger than 1 MiB", path.display()));
    }
    Ok(content)
}

/// The certificates of a PEM file, to be trusted.
pub(crate) fn authorities(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() {
        return Err("there is no certificate in it".to_owned());
    }
    Ok(roots)
}

/// Something that is made of files, and made anew when their contents change.
///
/// By content and not by time of change: right for files that are exchanged by symbolic link, too.
#[derive(Debug)]
pub(crate) struct Followed<T>(watch::Receiver<Arc<T>>);

impl<T> Clone for Followed<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Send + Sync + 'static> Followed<T> {
    /// Makes it of the contents of these files, in their order, and looks every `interval` whether
    /// there are new ones, while there is a clone of this value. New contents that cannot be used
    /// leave what was made of the old ones.
    pub(crate) async fn open<F>(
        paths: Vec<PathBuf>,
        interval: Duration,
        make: F,
    ) -> Result<Self, String>
    where
        F: Fn(&[Vec<u8>]) -> Result<T, String> + Send + 'static,
    {
        let contents = read_all(&paths).await?;
        let made = make(&contents).map_err(|error| format!("{}: {error}", names(&paths)))?;
        let (sender, receiver) = watch::channel(Arc::new(made));
        tokio::spawn(follow(paths, interval, make, contents, sender));
        Ok(Self(receiver))
    }

    /// What is made of the files as they are.
    pub(crate) fn now(&self) -> Arc<T> {
        Arc::clone(&self.0.borrow())
    }
}

async fn follow<T, F>(
    paths: Vec<PathBuf>,
    interval: Duration,
    make: F,
    mut last: Vec<Vec<u8>>,
    sender: watch::Sender<Arc<T>>,
) where
    F: Fn(&[Vec<u8>]) -> Result<T, String>,
{
    let mut complaint = None;
    loop {
        tokio::select! {
            () = sender.closed() => return,
            () = sleep(interval) => {}
        }
        let made = match read_all(&paths).await {
            Ok(contents) if contents == last => continue,
            Ok(contents) => {
                let made = make(&contents);
                last = contents;
                made
            }
            Err(error) => Err(error),
        };
        let files = names(&paths);
        match made {
            Ok(made) => {
                complaint = None;
                sender.send_replace(Arc::new(made));
                tracing::info!(files, "read again: they have changed");
            }
            Err(error) if complaint.as_ref() != Some(&error) => {
                tracing::warn!(
                    files,
                    error,
                    "cannot be used as they are now: what they were stays in use"
                );
                complaint = Some(error);
            }
            Err(_) => {}
        }
    }
}

async fn read_all(paths: &[PathBuf]) -> Result<Vec<Vec<u8>>, String> {
    let mut contents = Vec::with_capacity(paths.len());
    for path in paths {
        contents.push(read(path).await?);
    }
    Ok(contents)
}

fn names(paths: &[PathBuf]) -> String {
    let names: Vec<_> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    names.join(", ")
}
