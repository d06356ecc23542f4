// Sets the light or dark theme before anything is drawn: the system's, unless the user or the page around has chosen one.
(() => {
  const root = document.documentElement, system = matchMedia("(prefers-color-scheme: dark)");
  const stored = () => {
    try {
      return localStorage.getItem("theme");
    } catch {
      // A browser may allow a page in an iframe no storage.
      return null;
    }
  };
  const apply = () => {
    root.dataset.theme = root.dataset.wantedTheme ?? stored() ?? (system.matches ? "dark" : "light");
  };
  system.addEventListener("change", apply);
  addEventListener("theme", apply);
  apply();
})();
