//! The memory that this program's own code takes.
//!
//! Code pages come into memory in runs of 64 KiB and stay there as long as nothing else needs the memory, so that a
//! process which has started still holds nearly all of its program. They are given back now and then: what is needed
//! is mapped again from the page cache at the price of a soft fault for each run.

use std::ffi::c_void;
use std::ops::Range;
use std::path::Path;
use std::ptr::NonNull;
use std::time::Duration;

use nix::sys::mman::{MmapAdvise, madvise};
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// The first time comes when starting is over.
const FIRST: Duration = Duration::from_secs(20);
const PERIOD: Duration = Duration::from_secs(60);

/// Gives code pages back until `stop`.
pub async fn give_back_code(stop: CancellationToken) {
    let mut pause = tokio::time::interval_at(tokio::time::Instant::now() + FIRST, PERIOD);
    while stop.run_until_cancelled(pause.tick()).await.is_some() {
        match (std::fs::read_to_string("/proc/self/maps"), std::fs::read_link("/proc/self/exe")) {
            (Ok(maps), Ok(program)) => code_of(&maps, &program).for_each(give_back),
            (Err(error), _) | (_, Err(error)) => debug!(%error, "code pages are kept"),
        }
    }
}

/// Where the code of `program` is mapped: readable, executable, never written.
fn code_of<'m>(maps: &'m str, program: &'m Path) -> impl Iterator<Item = Range<usize>> + 'm {
    maps.lines().filter_map(move |line| {
        // Address range, permissions, offset, device, inode, path.
        let mut fields = line.split_ascii_whitespace();
        let (range, permissions) = (fields.next()?, fields.next()?);
        let path = fields.nth(3)?;
        if permissions != "r-xp" || Path::new(path) != program {
            return None;
        }
        let (begin, end) = range.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        Some(address(begin)?..address(end)?)
    })
}

#[allow(unsafe_code, reason = "the kernel is told about memory by its address")]
fn give_back(code: Range<usize>) {
    let Some(begin) = NonNull::new(code.start as *mut c_void) else { return };
    // SAFETY: the range is a private mapping of a file that has never been written to (it is not writable), so that its
    // pages hold what the file holds: whoever reads or runs them next finds them unchanged.
    if let Err(error) = unsafe { madvise(begin, code.len(), MmapAdvise::MADV_DONTNEED) } {
        debug!(%error, "code pages are kept");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_the_program_itself_is_given_back() {
        let maps = "\
1000-2000 r--p 00000000 fe:00 77 /usr/bin/kube-lite
2000-5000 r-xp 00001000 fe:00 77 /usr/bin/kube-lite
5000-6000 r--p 00004000 fe:00 77 /usr/bin/kube-lite
6000-7000 rw-p 00005000 fe:00 77 /usr/bin/kube-lite
7000-8000 rw-p 00000000 00:00 0
8000-9000 r-xp 00000000 fe:00 78 /usr/lib/libc.so.6
9000-a000 r-xp 00000000 00:00 0 [vdso]
";
        let found: Vec<_> = code_of(maps, Path::new("/usr/bin/kube-lite")).collect();
        assert_eq!((found.len(), found[0].clone()), (1, 0x2000..0x5000));
    }

    #[test]
    fn the_program_goes_on_without_its_pages() {
        let (maps, program) = (
            std::fs::read_to_string("/proc/self/maps").unwrap(),
            std::fs::read_link("/proc/self/exe").unwrap(),
        );
        let code: Vec<_> = code_of(&maps, &program).collect();
        assert_eq!(code.len(), 1, "{maps}");
        let resident = || {
            let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let begin = format!("{:x}-", code[0].start);
            let rest = smaps.split_once(&begin).unwrap().1;
            let line = rest.lines().find(|line| line.starts_with("Rss:")).unwrap();
            line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        let before = resident();
        give_back(code[0].clone());
        assert!(resident() < before, "{} of {before} KiB", resident());
    }
}
