#!/usr/bin/env python3
"""Writes golden.txt: what libseccomp makes of profiles, call by call.

    python3 golden.py > golden.txt        (Debian: libseccomp2; nothing else)

Each profile is given to libseccomp as runc gives it (rules with the default action, and names that it does not know,
are left out; a rule that names an argument twice is a rule for each condition). The program that libseccomp exports
is then run here for each call. Calls with arguments are those at and beside the values of the conditions, in both
words. Where libseccomp 2.5 answers what no rule says (its tree of shared words loses some), the row is left out and
counted on stderr. Two NE of one argument and different actions are not here: libseccomp decides them by a word.
"""
import ctypes, itertools, random, struct, sys, tempfile

lib = ctypes.CDLL("libseccomp.so.2")


class Argument(ctypes.Structure):
    _fields_ = [("index", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


lib.seccomp_init.restype = ctypes.c_void_p
lib.seccomp_init.argtypes = [ctypes.c_uint32]
lib.seccomp_rule_add_array.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]
lib.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
lib.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]

OPS = {"NE": 1, "LT": 2, "LE": 3, "EQ": 4, "GE": 5, "GT": 6, "MASKED_EQ": 7}
ACTIONS = {"KILL": 0, "KILL_THREAD": 0, "KILL_PROCESS": 0x80000000, "TRAP": 0x30000, "LOG": 0x7FFC0000, "ALLOW": 0x7FFF0000}
X86_64, X86, X32 = 0xC000003E, 0x40000003, 0x4000003E
LAST = 462
ALL = (1 << 64) - 1


def value(action, errno):
    if action == "ERRNO":
        return 0x50000 | (1 if errno is None else errno)
    if action == "TRACE":
        return 0x7FF00000 | (1 if errno is None else errno)
    return ACTIONS[action]


def matches(condition, args):
    index, op, a, b = condition
    have = args[index]
    return {"NE": have != a, "LT": have < a, "LE": have <= a, "EQ": have == a, "GE": have >= a, "GT": have > a,
            "MASKED_EQ": have & a == b & a}[op]


class Profile:
    def __init__(self, name, default, rules, architectures=(), errno=None):
        self.name, self.default, self.errno, self.rules, self.architectures = name, default, errno, rules, architectures
        base = value(default, errno)
        self.base, self.flat = base, []
        context = lib.seccomp_init(base)
        assert context, name
        for architecture in architectures:
            if architecture != "X86_64":
                assert lib.seccomp_arch_add(context, {"X86": X86, "X32": X32}[architecture]) == 0
        for action, number, names, conditions in rules:
            ret = value(action, number)
            indices = [condition[0] for condition in conditions]
            sets = [[one] for one in conditions] if len(set(indices)) < len(indices) else [conditions]
            for name in names:
                syscall = lib.seccomp_syscall_resolve_name(name.encode())
                if ret == base or syscall < 0:
                    continue
                for one in sets:
                    array = (Argument * max(1, len(one)))(*[Argument(i, OPS[op], a, b) for i, op, a, b in one])
                    code = lib.seccomp_rule_add_array(context, ret, syscall, len(one), array)
                    assert code == 0, (self.name, name, one, code)
                    self.flat.append((syscall, ret, one))
        with tempfile.TemporaryFile() as file:
            assert lib.seccomp_export_bpf(context, file.fileno()) == 0
            file.seek(0)
            self.program = [struct.unpack("HBBI", word) for word in iter(lambda: file.read(8), b"")]

    def answer(self, syscall, args=(0,) * 6, architecture=X86_64):
        data = struct.pack("<IIQ6Q", syscall & 0xFFFFFFFF, architecture, 0, *args)
        at, register = 0, 0
        while True:
            code, yes, no, k = self.program[at]
            at += 1
            if code == 0x20:
                register = struct.unpack_from("<I", data, k)[0]
            elif code == 0x54:
                register &= k
            elif code == 0x05:
                at += k
            elif code == 0x06:
                return k
            else:
                holds = {0x15: register == k, 0x25: register > k, 0x35: register >= k, 0x45: register & k != 0}[code]
                at += yes if holds else no

    def is_sound(self, syscall, args, answer):
        rules = [(ret, conditions) for number, ret, conditions in self.flat if number == syscall]
        said = [ret for ret, conditions in rules if not conditions]
        said = said[:1] or [ret for ret, conditions in rules if all(matches(one, args) for one in conditions)]
        return answer in (said or [self.base])


def arguments(conditions, rng):
    """Values at and beside those of the conditions, each word changed by itself."""
    values = {}
    for index, op, a, b in conditions:
        mine = values.setdefault(index, {0, ALL})
        for word in (a, b) if op == "MASKED_EQ" else (a,):
            mine |= {(word + step) & ALL for step in (-1, 0, 1)}
            mine |= {(word + (step << 32)) & ALL for step in (-1, 1)} | {word & 0xFFFFFFFF, word >> 32}
    lists = [sorted(values.get(index, {0})) for index in range(6)]
    every = 1
    for one in lists:
        every *= len(one)
    if every <= 24:
        yield from itertools.product(*lists)
    else:
        for _ in range(24):
            yield tuple(rng.choice(one) for one in lists)


def show(profile, rng, dropped):
    print(f"profile {profile.name}")
    print(f"default SCMP_ACT_{profile.default} {'-' if profile.errno is None else profile.errno}")
    for architecture in profile.architectures:
        print(f"architecture SCMP_ARCH_{architecture}")
    for action, number, names, conditions in profile.rules:
        parts = [f"rule SCMP_ACT_{action} {'-' if number is None else number}", " ".join(names)]
        parts += [f"{index} SCMP_CMP_{op} {a:x} {b:x}" for index, op, a, b in conditions]
        print(" | ".join(parts))
    top = LAST if profile.default == "ERRNO" else 1100
    for answer, group in itertools.groupby(range(top + 1), key=profile.answer):
        numbers = [number for number in group if profile.is_sound(number, (0,) * 6, answer)]
        for first, last in spans(numbers):
            print(f"calls {first} {last} {answer:x}")
    print(f"calls {ALL & 0xFFFFFFFF} {ALL & 0xFFFFFFFF} {profile.answer(-1):x}")
    if "X32" not in profile.architectures:
        print(f"calls {1 << 30} {(1 << 30) + 600} {profile.answer((1 << 30) + 1):x}")
    for architecture in (X86, 0xC00000B7, 0):
        if "X86" not in profile.architectures:
            print(f"foreign {architecture:x} {profile.answer(1, architecture=architecture):x}")
    for syscall in sorted({number for number, _, conditions in profile.flat if conditions}):
        conditions = [one for number, _, list in profile.flat if number == syscall for one in list]
        seen = set()
        for args in arguments(conditions, rng):
            answer = profile.answer(syscall, args)
            if args in seen:
                continue
            seen.add(args)
            if profile.is_sound(syscall, args, answer):
                print(f"call {syscall} {','.join(f'{one:x}' for one in args)} {answer:x}")
            else:
                dropped.append((profile.name, syscall, args))


def spans(numbers):
    first = last = None
    for number in numbers:
        if last is not None and number == last + 1:
            last = number
            continue
        if first is not None:
            yield first, last
        first = last = number
    if first is not None:
        yield first, last


def named(numbers):
    lib.seccomp_syscall_resolve_num_arch.restype = ctypes.c_char_p
    names = (lib.seccomp_syscall_resolve_num_arch(X86_64, number) for number in numbers)
    return [name.decode() for name in names if name]


def profiles():
    refused = """acct add_key bpf clock_settime create_module delete_module finit_module get_kernel_syms get_mempolicy
        init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load keyctl
        lookup_dcookie mbind mount move_mount move_pages nfsservctl open_by_handle_at open_tree perf_event_open pivot_root
        query_module quotactl reboot request_key set_mempolicy setns settimeofday swapoff swapon sysfs _sysctl umount2
        unshare uselib userfaultfd ustat vm86 clone clone3 socket personality fsopen fsmount fsconfig fspick""".split()
    allowed = [name for name in named(range(LAST + 1)) if name not in refused] + ["socketcall", "_llseek", "no_such_call"]
    clone = [("ALLOW", None, ["clone"], [(0, "MASKED_EQ", 0x7E020000, 0)]), ("ERRNO", 38, ["clone3"], [])]
    personality = [("ALLOW", None, ["personality"], [(0, "EQ", one, 0)]) for one in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)]
    common = [("ALLOW", None, allowed, [])]
    yield Profile("an allow-list as Docker's", "ERRNO",
                  common + clone + personality + [("ALLOW", None, ["socket"], [(0, "NE", 40, 0)])],
                  ("X86_64", "X86", "X32"), 1)
    yield Profile("an allow-list as containerd's", "ERRNO",
                  common + personality + [("ALLOW", None, ["socket"], [(0, "LT", 40, 0)]), ("ALLOW", None, ["socket"], [(0, "GT", 40, 0)])]
                  + clone + [("ALLOW", None, ["setns", "mount", "umount2"], [])], ("X86_64",))
    for default, errno in (("KILL", None), ("KILL_THREAD", None), ("KILL_PROCESS", None), ("TRAP", None), ("TRACE", None),
                           ("TRACE", 77), ("LOG", None), ("ALLOW", None), ("ERRNO", None), ("ERRNO", 38), ("ERRNO", 4094)):
        yield Profile(f"default {default} {errno}, every action", default, [
            ("ALLOW", None, ["read", "write", "close", "execve", "exit_group"], []), ("KILL", None, ["getpid"], []),
            ("KILL_THREAD", None, ["getppid"], []), ("KILL_PROCESS", None, ["getuid"], []), ("TRAP", None, ["getgid"], []),
            ("ERRNO", 22, ["geteuid"], []), ("ERRNO", None, ["getegid"], []), ("TRACE", 5, ["gettid"], []),
            ("TRACE", None, ["getpgrp"], []), ("LOG", None, ["umask"], []), ("ERRNO", 0, ["sync"], []),
            ("TRACE", 0xFFFF, ["uname"], []), (default, errno, ["pause"], []),
            ("ALLOW", None, ["kill"], [(1, "LT", 32, 0)]), ("TRAP", None, ["kill"], [(0, "EQ", 1, 0)])], errno=errno)
    words = (0, 1, 5, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 32, (1 << 32) + 5, 0x123456789ABCDEF0, 1 << 63, ALL)
    for op in OPS:
        pairs = [(word, 0) for word in words]
        if op == "MASKED_EQ":
            pairs = [(0xF0, 0x10), (0xF0, 0x1F), (0, 0), (0xF << 32, 3 << 32), (ALL, 77), (0x80000001 << 32 | 1, 1), (ALL << 32 & ALL, 5 << 32)]
        names = named(range(len(pairs)))
        rules = [("ERRNO", 9, [name], [(at % 6, op, *pair)]) for at, (name, pair) in enumerate(zip(names, pairs))]
        yield Profile(f"operator {op}", "ALLOW", rules)
    yield Profile("conditions of one rule are ANDed", "ERRNO", [
        ("ALLOW", None, ["ioctl"], [(0, "EQ", 1, 0), (1, "EQ", 0x5401, 0), (5, "NE", 0, 0)]),
        ("LOG", None, ["fcntl"], [(2, "MASKED_EQ", 0xFF, 3), (1, "GE", 1 << 33, 0)]),
        ("TRAP", None, ["mmap"], [(0, "GT", 7, 0), (1, "LT", 9, 0), (2, "LE", 4, 0), (3, "GE", 2, 0), (4, "NE", ALL, 0), (5, "EQ", 0, 0)])], errno=13)
    yield Profile("rules of one call are ORed", "KILL_PROCESS", [
        ("ALLOW", None, ["prctl"], [(0, "EQ", 15, 0)]), ("ALLOW", None, ["prctl"], [(0, "EQ", 16, 0)]),
        ("ALLOW", None, ["prctl"], [(0, "EQ", 38, 0), (1, "EQ", 1, 0)]), ("ALLOW", None, ["prctl"], [(3, "GT", 1 << 40, 0)]),
        ("ERRNO", 1, ["madvise"], [(2, "EQ", 100, 0)]), ("ERRNO", 1, ["madvise"], [(2, "GE", 12, 0), (0, "EQ", 0, 0)])])
    yield Profile("one argument twice is a rule each", "ALLOW", [
        ("ERRNO", 3, ["personality"], [(0, "EQ", 4, 0), (0, "EQ", 1 << 34, 0)]),
        ("ERRNO", 4, ["setuid", "setgid"], [(0, "LT", 5, 0), (0, "GT", 100, 0), (1, "EQ", 1, 0)])])
    conditional = [(0, "EQ", 5, 0)]
    yield Profile("of rules with and without conditions", "ERRNO", [
        ("ALLOW", None, ["read"], []), ("ERRNO", 2, ["read"], conditional), ("ERRNO", 2, ["write"], conditional),
        ("ALLOW", None, ["write"], []), ("ERRNO", 2, ["open"], []), ("ALLOW", None, ["open"], []),
        ("KILL", None, ["close"], conditional), ("ALLOW", None, ["close"], []), ("TRAP", None, ["close"], []),
        ("ERRNO", 99, ["stat"], []), ("ALLOW", None, ["stat"], conditional)], errno=99)
    overlaps = [
        [(0, "GT", 5, 0)], [(0, "EQ", 7, 0)]], [[(0, "EQ", 7, 0)], [(0, "GT", 5, 0)]], [[(0, "LT", 5, 0)], [(0, "GT", 2, 0)]], \
        [[(0, "GE", 2, 0)], [(0, "GE", 4, 0)]], [[(0, "LE", 9, 0)], [(0, "LE", 4, 0)]], [[(0, "NE", 3, 0)], [(0, "EQ", 8, 0)]], \
        [[(0, "NE", 3, 0)], [(0, "GT", 1, 0)]], [[(0, "EQ", 1, 0)], [(1, "EQ", 2, 0)]], [[(1, "EQ", 2, 0)], [(0, "EQ", 1, 0)]], \
        [[(0, "EQ", 1, 0), (1, "EQ", 2, 0)], [(1, "EQ", 2, 0)]], [[(0, "EQ", 1, 0)], [(0, "EQ", 1, 0), (1, "EQ", 2, 0)]], \
        [[(2, "MASKED_EQ", 3, 3)], [(2, "LT", 8, 0)]]
    for actions in ((("ALLOW", None), ("KILL", None)), (("ERRNO", 2), ("ERRNO", 3)), (("TRAP", None), ("LOG", None))):
        names = named(range(len(overlaps)))
        rules = [(*action, [name], conditions) for name, pair in zip(names, overlaps) for action, conditions in zip(actions, pair)]
        yield Profile(f"overlaps of {actions[0][0]} and {actions[1][0]}", "ERRNO", rules, errno=99)
    far = [("ERRNO", 100 + at, [name], []) for at, name in enumerate(named(range(0, 330, 2)))]
    far += [("TRACE", at, [name], [(at % 6, "GT", at << 30, 0)]) for at, name in enumerate(named(range(1, 330, 2)))]
    yield Profile("so many that jumps are far", "ALLOW", far)
    rng = random.Random(3)
    for turn in range(8):
        rules = []
        for name in named(range(turn * 20, turn * 20 + 6)):
            for _ in range(rng.randint(1, 3)):
                chosen = sorted(rng.sample(range(6), rng.randint(1, 2)))
                rules.append(("ALLOW", None, [name], [(index, rng.choice(list(OPS)), rng.choice(words), rng.choice(words)) for index in chosen]))
        yield Profile(f"drawn by lot, {turn}", "ERRNO", rules, errno=turn + 1)


def main():
    print("# Written by golden.py: do not edit.")
    rng, dropped = random.Random(1), []
    for profile in profiles():
        show(profile, rng, dropped)
    print(f"{len(dropped)} rows left out, of {sorted({name for name, _, _ in dropped})}", file=sys.stderr)


main()
