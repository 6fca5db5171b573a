// Show the products inside Airflow's page: fetch what the server has drawn, and follow links without loading anew.
// Airflow provides React and its router as globals, and takes the component from the global of the plugin's name.
const { createElement, useEffect, useRef, useState } = globalThis.React;
const { useLocation, useNavigate } = globalThis.ReactRouterDOM;
const HERE = new URL(".", import.meta.url); // .../lamplighter/
const AIRFLOW = new URL("..", HERE).pathname; // where Airflow's own addresses begin
const PAGE = "plugin/products";
const REFRESH_MILLISECONDS = 60_000;

function addStyle() {
  const href = new URL("style.css", HERE).href;
  if (!document.querySelector(`link[href="${href}"]`)) {
    document.head.append(Object.assign(document.createElement("link"), { rel: "stylesheet", href }));
  }
}

async function read(product, signal) {
  const address = new URL(product ? `fragment/${product}` : "fragment", HERE);
  const answer = await fetch(address, { signal, credentials: "same-origin" });
  if (answer.ok) return { html: await answer.text() };
  if (answer.status === 401) return { text: "You are signed out: load the page again to sign in." };
  if (answer.status === 403) return { text: "You may not see this page." };
  const { detail } = await answer.json().catch(() => ({}));
  return { text: detail ?? `The server answered ${answer.status}.` };
}

globalThis.Products = function Products() {
  const { pathname } = useLocation();
  const navigate = useNavigate();
  const place = useRef(null);
  const [shown, show] = useState({ text: "Loading …" });
  const product = pathname.split(`${PAGE}/`)[1] ?? "";

  useEffect(() => {
    addStyle();
    const stop = new AbortController();
    const refresh = () =>
      read(product, stop.signal)
        .then(show)
        .catch(() => stop.signal.aborted || show({ text: "The server does not answer; trying again in a minute." }));
    refresh();
    const timer = setInterval(() => document.hidden || refresh(), REFRESH_MILLISECONDS);
    return () => (stop.abort(), clearInterval(timer));
  }, [product]);

  useEffect(() => {
    // Every value in the server's HTML is escaped there; text of our own is set as text.
    if (shown.html === undefined) place.current.textContent = shown.text;
    else if (place.current.innerHTML !== shown.html) place.current.innerHTML = shown.html;
  }, [shown]);

  const follow = (event) => {
    const link = event.target.closest("a[href]");
    const plain = event.button === 0 && !(event.metaKey || event.ctrlKey || event.shiftKey || event.altKey);
    const isInside = link && link.origin === location.origin && link.pathname.startsWith(AIRFLOW);
    if (!plain || !isInside || link.pathname.startsWith(HERE.pathname)) return;
    event.preventDefault();
    navigate(`/${link.pathname.slice(AIRFLOW.length)}${link.search}`);
    if (link.pathname.startsWith(AIRFLOW + PAGE)) window.scrollTo(0, 0);
  };
  return createElement("div", { ref: place, onClick: follow, style: { height: "100%", overflow: "auto" } });
};
