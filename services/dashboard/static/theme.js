// Light or dark, before anything is drawn: the address, else what was chosen here, else the system.
(() => {
  const asked = new URLSearchParams(location.search).get("theme");
  let chosen = null;
  try {
    chosen = localStorage.getItem("theme");
  } catch {
    // storage may be closed to us: the system decides
  }
  const theme = [asked, chosen].find((each) => each === "light" || each === "dark");
  if (theme) document.documentElement.dataset.theme = theme;
})();
