//! The process that holds a pod's namespaces: it reaps orphans as process 1 and ends when asked to.
//!
//! No standard library, no C library: what is left is a few kilobytes that need nothing in their image.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};
use core::panic::PanicInfo;

#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start:", "xor ebp, ebp", "and rsp, -16", "call {run}", "ud2", run = sym run);
#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x29, #0", "bl {run}", "brk #0", run = sym run);

#[cfg(target_arch = "x86_64")]
mod number {
    pub const SIGPROCMASK: usize = 14;
    pub const SIGTIMEDWAIT: usize = 128;
    pub const WAIT4: usize = 61;
    pub const EXIT_GROUP: usize = 231;
}
#[cfg(target_arch = "aarch64")]
mod number {
    pub const SIGPROCMASK: usize = 135;
    pub const SIGTIMEDWAIT: usize = 137;
    pub const WAIT4: usize = 260;
    pub const EXIT_GROUP: usize = 94;
}

const SIGINT: isize = 2;
const SIGTERM: isize = 15;
const SIGCHLD: isize = 17;
const BLOCK: usize = 0;
const NO_HANG: usize = 1;

/// # Safety
/// The arguments must be what the kernel expects of this call.
unsafe fn syscall(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let answer: isize;
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("syscall", inlateout("rax") number => answer, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a => answer, in("x1") b, in("x2") c, in("x3") d,
            options(nostack));
    }
    answer
}

/// A blocked signal waits for us even where its default would be ignored, as it is for process 1.
extern "C" fn run() -> ! {
    let set: u64 = [SIGINT, SIGTERM, SIGCHLD].iter().fold(0, |set, signal| set | 1 << (signal - 1));
    let waited_for = &raw const set as usize;
    // SAFETY: the set outlives the calls, and absent results are allowed for each of them.
    unsafe {
        syscall(number::SIGPROCMASK, BLOCK, waited_for, 0, 8);
        loop {
            while syscall(number::WAIT4, usize::MAX, 0, NO_HANG, 0) > 0 {}
            let signal = syscall(number::SIGTIMEDWAIT, waited_for, 0, 0, 8);
            if signal == SIGINT || signal == SIGTERM {
                syscall(number::EXIT_GROUP, 0, 0, 0, 0);
            }
        }
    }
}

#[panic_handler]
fn panic(_: &PanicInfo) -> ! {
    loop {}
}
