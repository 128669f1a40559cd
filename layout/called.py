"""Runs a program and says which of its functions were called: a breakpoint on each, met once.

    with Called(command, functions) as called: ...      # functions: addresses in the file
    called.functions                                    # those of them that ran
"""

import ctypes
import os
import signal
import threading

TRACEME, CONT, GETREGS, SETREGS, SETOPTIONS = 0, 7, 12, 13, 0x4200
THREADS_TOO, KILLED_WITH_US = 1 << 3, 1 << 20  # PTRACE_O_TRACECLONE, PTRACE_O_EXITKILL
ANY_THREAD_OF_OURS = 0x60000000  # __WALL, __WNOTHREAD
INT3 = b"\xcc"
RIP = 16  # place of rip in user_regs_struct, in words

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


class Called:
    def __init__(self, command, functions, output):
        self.command, self.addresses, self.output = command, functions, output
        self.functions = set()

    def __enter__(self):
        started = threading.Event()
        # all of ptrace must be done by the thread that began it
        self.thread = threading.Thread(target=self._run, args=(started,))
        self.thread.start()
        started.wait()
        return self

    def __exit__(self, *_):
        os.kill(self.pid, signal.SIGTERM)
        self.thread.join()

    def _run(self, started):
        self.pid = os.fork()
        if self.pid == 0:
            libc.ptrace(TRACEME, 0, None, None)
            os.dup2(self.output.fileno(), 1)
            os.dup2(self.output.fileno(), 2)
            os.execv(self.command[0], self.command)
        os.waitpid(self.pid, 0)
        libc.ptrace(SETOPTIONS, self.pid, None, THREADS_TOO | KILLED_WITH_US)
        with open(f"/proc/{self.pid}/maps") as maps:
            base = int(maps.readline().split("-")[0], 16)
        memory = os.open(f"/proc/{self.pid}/mem", os.O_RDWR)
        first_bytes = {}
        for address in self.addresses:
            first_bytes[address] = os.pread(memory, 1, base + address)
            os.pwrite(memory, INT3, base + address)
        libc.ptrace(CONT, self.pid, None, None)
        started.set()
        while True:
            thread, status = os.waitpid(-1, ANY_THREAD_OF_OURS)
            if os.WIFEXITED(status) or os.WIFSIGNALED(status):
                if thread == self.pid:
                    os.close(memory)
                    return
                continue
            stopped_by = os.WSTOPSIG(status)
            if stopped_by == signal.SIGTRAP and status >> 16 == 0:
                self._met(thread, base, memory, first_bytes)
            is_ours = stopped_by in (signal.SIGTRAP, signal.SIGSTOP)
            libc.ptrace(CONT, thread, None, None if is_ours else stopped_by)

    def _met(self, thread, base, memory, first_bytes):
        registers = (ctypes.c_ulonglong * 27)()
        libc.ptrace(GETREGS, thread, None, ctypes.byref(registers))
        address = registers[RIP] - 1 - base
        if address in first_bytes:
            self.functions.add(address)
            os.pwrite(memory, first_bytes[address], base + address)
            registers[RIP] -= 1
            libc.ptrace(SETREGS, thread, None, ctypes.byref(registers))
