// `python` in an environment of Pyodide: node pyodide.mjs PACKAGE MOUNT EXECUTABLE [ARGUMENT ...]
const [directory, mount, executable, ...args] = process.argv.slice(2);
const { loadPyodide } = await import(`${directory}/pyodide.mjs`);
const pyodide = await loadPyodide({
  args,
  _sysExecutable: executable, // beside it, or above, lies pyvenv.cfg
  env: { PYTHONINSPECT: "", ...process.env },
  // Before Python starts: the environment must be there when site looks for it.
  fsInit: async (FS) => {
    FS.mkdirTree(mount);
    FS.mount(FS.filesystems.NODEFS, { root: mount }, mount);
  },
});
process.exitCode = pyodide._module._run_main();
