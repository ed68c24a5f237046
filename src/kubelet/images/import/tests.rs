//! Importing against a fake runtime whose `ctr` puts into it what a file names.

use super::*;
use crate::cri::fake::FakeRuntime;
use crate::host::fake::FakeProcesses;
use crate::host::processes::Output;

struct Setup {
    dir: tempfile::TempDir,
    runtime: FakeRuntime,
    processes: Arc<FakeProcesses>,
    importer: Importer,
}

impl Setup {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = FakeRuntime::new();
        let processes = Arc::new(FakeProcesses::default());
        let target = runtime.clone();
        processes.answer("ctr", move |command| ctr(&target, command));
        let config = ImportConfig {
            images_dir: dir.path().join("images"),
            record: dir.path().join("record.json"),
            containerd_socket: "/run/c.sock".into(),
            snapshotter: "native".into(),
        };
        let importer = Importer::new(config, processes.clone(), Arc::new(runtime.clone()));
        std::fs::create_dir(dir.path().join("images")).unwrap();
        Self { dir, runtime, processes, importer }
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join("images").join(name), text).unwrap();
    }

    fn imports(&self) -> usize {
        self.processes.ran().iter().filter(|command| command.args.contains(&"import".to_owned())).count()
    }
}

/// An "archive" is a text with one image name a line.
fn ctr(runtime: &FakeRuntime, command: &Command) -> Output {
    if !command.args.contains(&"import".to_owned()) {
        return Output::default();
    }
    let file = command.args.last().unwrap();
    if file == "-" {
        runtime.add_image(pause::IMAGE);
        return Output::default();
    }
    let text = std::fs::read_to_string(file).unwrap();
    if text == "broken" {
        let stderr = b"ctr: unrecognized image format\n".to_vec();
        return Output { code: 1, stderr, ..Output::default() };
    }
    let mut stdout = String::new();
    for image in text.lines() {
        runtime.add_image(image);
        stdout += &format!("unpacking {image} (sha256:00)...done\n");
    }
    Output { stdout: stdout.into_bytes(), ..Output::default() }
}

#[tokio::test]
async fn the_pause_image_is_imported_once_and_pinned() {
    let setup = Setup::new();
    for _ in 0..2 {
        setup.importer.ensure_pause().await.unwrap();
    }
    assert_eq!(setup.imports(), 1);
    let ran = setup.processes.ran();
    assert!(ran[0].args.join(" ").contains("--namespace k8s.io images import --snapshotter native -"));
    assert!(!ran[0].stdin.is_empty());
    assert!(ran[1].args.ends_with(&[pause::IMAGE.to_owned(), PINNED.to_owned()]));
}

#[tokio::test]
async fn archives_are_imported_once_and_other_files_left_alone() {
    let setup = Setup::new();
    setup.write("a.tar", "docker.io/library/a:1\n");
    setup.write("b.tar.zst", "docker.io/library/b:1\n");
    setup.write("notes.md", "docker.io/library/c:1\n");
    setup.write(".d.tar", "half a file");
    let first = setup.importer.scan().await;
    assert_eq!(first.imported, ["docker.io/library/a:1", "docker.io/library/b:1"]);
    let second = setup.importer.scan().await;
    assert_eq!((second.imported.len(), second.unchanged, setup.imports()), (0, 2, 2));
    setup.write("a.tar", "docker.io/library/a:2\n");
    assert_eq!(setup.importer.scan().await.imported, ["docker.io/library/a:2"]);
}

#[tokio::test]
async fn the_same_content_under_another_name_or_date_is_not_imported_again() {
    let setup = Setup::new();
    setup.write("a.tar", "docker.io/library/a:1\n");
    setup.importer.scan().await;
    setup.write("copy.tar", "docker.io/library/a:1\n");
    let file = std::fs::File::options().write(true).open(setup.dir.path().join("images/a.tar")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    let report = setup.importer.scan().await;
    assert_eq!((report.unchanged, setup.imports()), (2, 1));
}

#[tokio::test]
async fn an_image_that_was_removed_is_imported_again() {
    let setup = Setup::new();
    setup.write("a.tar", "docker.io/library/a:1\n");
    setup.importer.scan().await;
    let spec = v1::ImageSpec { image: "docker.io/library/a:1".into(), ..Default::default() };
    setup.runtime.remove_image(spec).await.unwrap();
    assert_eq!(setup.importer.scan().await.imported, ["docker.io/library/a:1"]);
}

#[tokio::test]
async fn a_broken_file_is_named_and_does_not_stop_the_others() {
    let setup = Setup::new();
    setup.write("a.tar", "broken");
    setup.write("b.tar", "docker.io/library/b:1\n");
    let report = setup.importer.scan().await;
    assert_eq!(report.imported, ["docker.io/library/b:1"]);
    let text = chain(&report.failed[0]);
    assert!(
        text.starts_with("import ") && text.contains("a.tar: ctr failed with exit code 1: ctr: unrec"),
        "{text}"
    );
    assert_eq!(setup.importer.scan().await.failed.len(), 1, "tried again");
}

#[tokio::test]
async fn lists_are_pulled() {
    let setup = Setup::new();
    setup.runtime.add_pullable("docker.io/library/a:1");
    setup.write("list.txt", "# ours\n\na:1\n");
    assert_eq!(setup.importer.scan().await.imported, ["docker.io/library/a:1"]);
    setup.write("more.txt", "b:1\n");
    let report = setup.importer.scan().await;
    assert_eq!(report.unchanged, 1);
    assert!(matches!(&report.failed[0], ImportError::Pull { image, .. } if image == "docker.io/library/b:1"));
}

#[tokio::test]
async fn files_that_appear_later_are_imported() {
    let setup = Setup::new();
    let stop = CancellationToken::new();
    let task = tokio::spawn(setup.importer.clone().run(stop.clone()));
    let shown = async |image: &str| {
        let filter =
            v1::ImageFilter { image: Some(v1::ImageSpec { image: image.into(), ..Default::default() }) };
        while setup.runtime.list_images(Some(filter.clone())).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    for number in 1..4 {
        let image = format!("docker.io/library/a:{number}");
        setup.write(&format!("{number}.tar"), &image);
        tokio::time::timeout(Duration::from_secs(20), shown(&image)).await.unwrap();
    }
    stop.cancel();
    task.await.unwrap();
}

#[test]
fn names_are_read_from_both_wordings_of_the_import_program() {
    let old = "unpacking docker.io/library/a:1 (sha256:12)...done\n";
    assert_eq!(unpacked(old), ["docker.io/library/a:1"]);
    let new = "docker.io/library/a:1                              saved\t\napplication/vnd.oci.image.manifest.v1+json sha256:12\n";
    assert_eq!(unpacked(new), ["docker.io/library/a:1"]);
}
