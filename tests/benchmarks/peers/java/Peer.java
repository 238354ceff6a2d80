import java.util.Map;
import org.camunda.bpm.client.ExternalTaskClient;

/** The official Java client on one topic: java -jar peer.jar ENGINE_URL TOPIC. Completes every task. */
public final class Peer {

  public static void main(String[] arguments) {
    var client = ExternalTaskClient.create()
        .baseUrl(arguments[0])
        .workerId("java")
        .maxTasks(100)
        .asyncResponseTimeout(10_000)
        .lockDuration(600_000)
        .disableAutoFetching()
        .build();
    client.subscribe(arguments[1])
        .handler((task, service) -> service.complete(task, Map.of("ok", true)))
        .open();
    System.out.println("ready");
    client.start();
  }
}
