#!/usr/bin/env python3
"""Measures pairs of mTLS sidecars side by side. See README.md."""

import argparse
import json
import os
import platform
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from meshbench import certs, limits, loads, peers, procs, table  # noqa: E402


def log(*a):
    print(time.strftime("%H:%M:%S"), *a, file=sys.stderr, flush=True)


def build_tool(folder):
    out = os.path.join(folder, "benchtool")
    cc = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if not cc:
        raise SystemExit("a C compiler is needed for the generator")
    subprocess.run([cc, "-O2", "-pthread", "-o", out, os.path.join(HERE, "tools", "benchtool.c"), "-lm"],
                   check=True, timeout=120)
    return out


def version_of(peer, pair_vars):
    if "version" not in peer:
        return None
    import string
    cmd = [string.Template(c).substitute(pair_vars) for c in peer["version"]]
    try:
        r = subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20)
        lines = [x.strip() for x in r.stdout.decode("utf-8", "replace").splitlines() if x.strip()]
        want = peer.get("version_match", "")
        return next((x for x in lines if want in x), lines[0] if lines else None)
    except (OSError, subprocess.TimeoutExpired):
        return None


def machine_facts():
    cpu = "?"
    try:
        with open("/proc/cpuinfo") as f:
            cpu = next(x.split(":", 1)[1].strip() for x in f if x.startswith("model name"))
    except (OSError, StopIteration):
        pass
    tools = {}
    for name, cmd in (("openssl", ["openssl", "version"]), ("iperf3", ["iperf3", "--version"]),
                      ("wrk", ["wrk", "-v"])):
        try:
            r = subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=10)
            tools[name] = r.stdout.decode().splitlines()[0]
        except (OSError, IndexError, subprocess.TimeoutExpired):
            tools[name] = None
    return {"cpu": cpu, "cores": os.cpu_count(), "kernel": platform.release(),
            "python": platform.python_version(), "tools": tools,
            "fd_limit": resource.getrlimit(resource.RLIMIT_NOFILE)}


def isolate():
    """A network namespace of our own: no firewall, no connection tracking, nobody else's ports."""
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x40000000) != 0:  # CLONE_NEWNET
        return f"no: {os.strerror(ctypes.get_errno())}"
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True, timeout=20)
    return "yes"


# glibc 2.36 copies with `rep movsb` from a threshold that is too low for this kind of work: on
# some processors that doubles the price of decryption, depending on how a buffer happens to be
# aligned. Out of the way for everybody alike, the comparison is of proxies, not of luck.
TUNABLES = "glibc.cpu.x86_rep_movsb_threshold=1073741824"

CC = "/proc/sys/net/ipv4/tcp_congestion_control"


def congestion(wanted):
    """Sets TCP congestion control in our own namespace; the first name that is allowed."""
    for name in wanted.split(","):
        try:
            with open(CC, "w") as f:
                f.write(name)
            break
        except OSError:
            continue
    with open(CC) as f:
        return f.read().strip()


def wait_quiet(limit_load, minutes):
    if limit_load is None:
        return os.getloadavg()[0]
    end = time.monotonic() + minutes * 60
    while os.getloadavg()[0] >= limit_load and time.monotonic() < end:
        time.sleep(5)
    return os.getloadavg()[0]


def wait_undisturbed(cores, minutes):
    """Until other programs have used less than this many cores for two seconds."""
    end = time.monotonic() + minutes * 60
    while cores is not None and time.monotonic() < end:
        f0, t0 = procs.foreign_cpu(), time.monotonic()
        time.sleep(2)
        if (procs.foreign_cpu() - f0) / (time.monotonic() - t0) <= cores:
            return
        time.sleep(1)


def save(path, result):
    if not path:
        return
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    tmp = path + ".part"
    with open(tmp, "w") as f:
        json.dump(result, f, indent=None, separators=(",", ":"))
        f.write("\n")
    os.replace(tmp, path)


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--proxies", default="", help="comma separated names; empty: every peer found, 'direct' and 'plain' too")
    ap.add_argument("--workloads", default=",".join(loads.DEFAULT), help="of: " + ",".join(loads.ALL))
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--threads", type=int, default=2, help="worker threads of each proxy, where settable")
    ap.add_argument("--seconds", type=int, help="measuring time per point; default: 5, latency 10")
    ap.add_argument("--rate", type=int, default=1000, help="requests/s of the latency workload")
    ap.add_argument("--idle", default="1000,5000", help="idle connection counts of the memory workload")
    ap.add_argument("--cipher", default="TLS_AES_128_GCM_SHA256", help="TLS 1.3 suite, where settable")
    ap.add_argument("--peers", action="append", default=[], help="further folder of peer definitions")
    ap.add_argument("--limits", action="store_true", help="also measure the machine's own limits")
    ap.add_argument("--max-load", type=float, help="wait until the 1-minute load is below this before each round")
    ap.add_argument("--max-wait", type=float, default=10, help="minutes to wait for a quiet machine, at most")
    ap.add_argument("--max-foreign", type=float,
                    help="wait until other programs use less than this many cores; repeat a measurement (at most four times) during which they used more")
    ap.add_argument("--no-isolate", action="store_true",
                    help="as root, do not move into a network namespace of our own")
    ap.add_argument("--congestion", default="cubic,reno",
                    help="TCP congestion control in our own namespace: the first that the kernel allows; '' leaves it")
    ap.add_argument("--glibc-tunables", default=TUNABLES,
                    help="GLIBC_TUNABLES for every process that is started; '' leaves the machine's own")
    ap.add_argument("--seed", type=int, default=1, help="order of the proxies within a round")
    ap.add_argument("--json", default=os.path.join(HERE, "out", time.strftime("%Y%m%d-%H%M%S.json")),
                    help="write everything here (after every sample); default: a new file in bench/out")
    ap.add_argument("--markdown", help="write the tables here too")
    ap.add_argument("--keep", action="store_true", help="keep the working folder with the proxies' logs")
    ap.add_argument("--list", action="store_true", help="list the definitions and whether they can run")
    ap.add_argument("--report", nargs="+", metavar="JSON", help="no measuring: tables from these result files")
    args = ap.parse_args()

    if args.report:
        merged = None
        for path in args.report:
            with open(path) as f:
                r = json.load(f)
            if merged is None:
                merged = r
            else:
                merged["samples"] += r["samples"]
                merged["meta"]["proxies"] += [p for p in r["meta"]["proxies"] if p not in merged["meta"]["proxies"]]
                merged["meta"]["baselines"] += r["meta"].get("baselines", [])
                merged["meta"]["not_best_in"].update(r["meta"].get("not_best_in", {}))
                merged.setdefault("limits", r.get("limits"))
        text = table.everything(merged, markdown=bool(args.markdown))
        if args.markdown:
            with open(args.markdown, "w") as f:
                f.write(text + "\n")
        print(text)
        return 0

    if args.glibc_tunables:
        os.environ["GLIBC_TUNABLES"] = args.glibc_tunables
    known = peers.load([os.path.join(HERE, "proxies")] + args.peers)
    if args.list:
        for n, d in known.items():
            prog = peers.find_program(d["bin"]) if d.get("bin") else "(none needed)"
            print(f"{n:16} {prog or 'not found':40} {d.get('summary', '')}")
        return 0
    if args.proxies:
        names = [n.strip() for n in args.proxies.split(",") if n.strip()]
        for n in names:
            if n not in known:
                raise SystemExit(f"no definition for {n}; known: {', '.join(known)}")
    else:
        names = [n for n, d in known.items() if not d.get("variant") and
                 (not d.get("bin") or peers.find_program(d["bin"]))]
    wanted = [w.strip() for w in args.workloads.split(",") if w.strip()]
    for w in wanted:
        if w not in loads.ALL:
            raise SystemExit(f"no workload {w}; known: {', '.join(loads.ALL)}")

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    own_net = "no"
    if os.geteuid() == 0 and not args.no_isolate:
        own_net = isolate()
        log("own network namespace:", own_net)
    cc = congestion(args.congestion) if own_net == "yes" and args.congestion else congestion("")
    log("TCP congestion control:", cc)
    work = tempfile.mkdtemp(prefix="meshbench-")
    os.chmod(work, 0o755)
    active = {"pair": None}

    def leave(signum, frame):
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, leave)  # also where the shell started us with it ignored
    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGHUP, leave)
    result = {"meta": {"started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "machine": machine_facts(),
                       "settings": {k: v for k, v in vars(args).items() if k not in ("json", "markdown", "report")},
                       "proxies": names, "versions": {}, "summaries": {}, "own_network_namespace": own_net,
                       "congestion_control": cc,
                       "baselines": [n for n in names if known[n].get("baseline")],
                       "not_best_in": {n: known[n]["not_best_in"] for n in names if "not_best_in" in known[n]}},
              "samples": []}
    code = 0
    try:
        tool = build_tool(work)
        pki = certs.make(os.path.join(work, "pki"))
        opts = {"rate": args.rate, "idle": [int(x) for x in args.idle.split(",") if x]}
        b = loads.Bench(pki, work, tool, args.threads, args.seconds, args.cipher, opts)
        for n in names:
            d = known[n]
            result["meta"]["summaries"][n] = d.get("summary")
            if d.get("bin"):
                prog = peers.find_program(d["bin"])
                if not prog:
                    raise SystemExit(f"{n}: {d['bin']} not found in $PEERS_DIR or PATH")
                result["meta"]["versions"][n] = version_of(d, {"bin": prog})
        if args.limits:
            wait_quiet(args.max_load, args.max_wait)
            log("limits of the machine")
            m = limits.measure(tool)
            result["limits"] = {"measured": m, "bounds": limits.bounds(m)}
            save(args.json, result)
        rng = random.Random(args.seed)
        original_pair = b.pair

        def tracked(peer, overrides=None):
            active["pair"] = original_pair(peer, overrides)
            return active["pair"]

        b.pair = tracked
        for w in wanted:
            for rnd in range(1 if w in loads.ONCE else args.rounds):
                load = wait_quiet(args.max_load, args.max_wait)
                order = list(names)
                rng.shuffle(order)
                for n in order:
                    t0 = time.monotonic()
                    sample = {"workload": w, "proxy": n, "round": rnd, "load_before": round(load, 2),
                              "threads": args.threads, "at": time.strftime("%H:%M:%S"),
                              "san_check": known[n].get("san_check", "")}
                    for attempt in range(1, 6):
                        wait_undisturbed(args.max_foreign, args.max_wait)
                        t1, f1 = time.monotonic(), procs.foreign_cpu()
                        try:
                            sample["metrics"] = loads.ALL[w](b, known[n])
                            sample.pop("error", None)
                        except (loads.LoadError, peers.PeerError, OSError, ValueError, KeyError,
                                subprocess.SubprocessError) as e:
                            sample["error"] = f"{type(e).__name__}: {e}"
                            log(f"{w} {n}: attempt {attempt}: {sample['error'][:400]}")
                            if active["pair"]:
                                active["pair"].stop()
                            procs.stop_all()
                            if attempt >= 2:
                                break
                            continue
                        used = (procs.foreign_cpu() - f1) / (time.monotonic() - t1)
                        sample["foreign_cores"] = round(used, 3)
                        if args.max_foreign is None or used <= args.max_foreign:
                            break
                        log(f"{w} {n}: other programs used {used:.2f} cores meanwhile")
                        sample["disturbed"] = attempt
                    sample["took_s"] = round(time.monotonic() - t0, 1)
                    result["samples"].append(sample)
                    shown = {k: v for k, v in sample.get("metrics", {}).items()
                             if isinstance(v, (int, float, str)) and k in {c[0] for c in table.COLUMNS.get(w, [])}}
                    log(f"{w} round {rnd + 1} {n} ({sample['took_s']} s):", shown or sample.get("error", "ok")[:200])
                    save(args.json, result)
        result["meta"]["ended"] = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    except KeyboardInterrupt:
        log("stopped")
        result["meta"]["stopped_early"] = True
        code = 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if active["pair"]:
            active["pair"].stop()
        procs.stop_all()
        if args.keep:
            log("kept", work)
        else:
            shutil.rmtree(work, ignore_errors=True)
    if result["samples"]:
        result["summary"] = table.ratios(table.summarize(result["samples"]), result["meta"])
        save(args.json, result)
        print(table.everything(result))
        if args.markdown:
            with open(args.markdown, "w") as f:
                f.write(table.everything(result, markdown=True) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
