/** Calls `act` at once and then at most once per span; the last call is never lost. */
export function throttle(act: () => void, ms: number): () => void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let again = false;
  const rest = (): void => {
    timer = undefined;
    if (again) run();
  };
  const run = (): void => {
    again = false;
    timer = setTimeout(rest, ms);
    act();
  };
  return () => {
    if (timer === undefined) run();
    else again = true;
  };
}
